"""Where a memory's rows come from: URL lists, folders, tars, clip-retrieval's folders."""
