"""Worker, broker and pool together, on real servers."""
