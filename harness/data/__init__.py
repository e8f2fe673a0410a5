"""A suite's datasets: their tables, how they are opened, and the streams that models receive."""
