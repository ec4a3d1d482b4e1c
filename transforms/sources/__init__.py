"""Where labelled images come from: class folders, IDX files, manifests, records."""
