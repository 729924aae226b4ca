"""The parameters of each stage, one module for each; a stage imports only its own."""
