"""Writers of image files: by hand where Pillow would write one kind only, or none."""
