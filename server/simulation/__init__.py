"""A federation on one machine. The one part of the server that imports the client."""
