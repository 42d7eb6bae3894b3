"""What the variables at the dashboard's top choose."""

MODEL = 'job=~"$job",instance=~"$instance",model=~"$model",version=~"$version"'
OF_JOB = 'job=~"$job"'
RECORDED = 'job=~"$job",model=~"$model",version=~"$version"'
RATE = "[$__rate_interval]"
