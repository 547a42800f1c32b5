"""Types of data sets, each of which opens as a `pipelines.Source`."""
