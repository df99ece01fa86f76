"""Published networks, one file a group: what each is, where its weights are."""
