"""The packaged model, which maps images to decisions, with a server, a web page and exports to other formats."""
