"""Where clips come from: manifests, downloading, the ledger of refusals, the rendered sample world."""
