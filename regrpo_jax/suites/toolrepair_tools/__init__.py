"""The tools of the ToolRepair suite. It is all of the suite that the sandbox sees: nothing here makes a task, and this
file imports nothing."""
