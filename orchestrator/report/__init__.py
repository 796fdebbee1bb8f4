"""What a run was and did, as one document: for a page that a browser shows, and for scripts."""
