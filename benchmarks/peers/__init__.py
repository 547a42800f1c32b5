"""The benchmarks' trainings in other frameworks, in the style of each framework's examples."""
