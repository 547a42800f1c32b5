"""Images: resizing, and conversion of image files to inputs that resemble a data set's images."""
