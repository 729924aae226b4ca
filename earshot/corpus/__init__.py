"""Clips before decoding: manifests, the ledger, the split and the wrong-sound control."""
