"""The sources of a memory's rows: URL lists, folders, tars, clip-retrieval's folders."""
