"""What an operator looks at: logs, metrics, traces, the tree of tasks, the inspector. None of it is needed to serve."""
