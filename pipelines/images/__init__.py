"""Images: resizing, and the conversion of files of any origin to what a network was trained on."""
