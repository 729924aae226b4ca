"""What is known of clips before they are decoded: manifests, the ledger, the split and its control."""
