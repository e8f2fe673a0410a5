"""A suite's datasets: their tables, their opening, and the streams that models meet."""
