"""The coach's command line: made of documents, and run."""
