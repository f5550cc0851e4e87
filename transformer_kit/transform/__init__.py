"""Transforms: functions Model -> Model that change a built model from outside; `pipeline` fixes their order."""
