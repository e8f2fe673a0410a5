"""From records to what people read: leaderboards, contrasts, tables, plots."""
