"""Types of data sets, one module each, that open as a `pipelines.Source`."""
