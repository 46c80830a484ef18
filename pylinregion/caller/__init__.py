"""The program that calls: its settings of torch, its modules, its threads and its processes, left as they were."""
