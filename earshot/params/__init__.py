"""The parameters of each stage, a module a stage: a stage loads its own and no other's."""
