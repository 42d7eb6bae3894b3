"""What happens inside a training run: steps, epochs, weights of tasks, what is kept and measured."""
