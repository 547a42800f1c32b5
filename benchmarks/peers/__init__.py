"""The same trainings in other frameworks, each written in the style of its examples."""
