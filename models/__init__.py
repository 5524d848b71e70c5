"""Models of behaviour: frames in, frames out; no SQL, no files but the bundle's own, no tracking server."""
