"""Transforms: what changes a built model from outside, each a function Model -> Model; `pipeline` fixes their order."""
