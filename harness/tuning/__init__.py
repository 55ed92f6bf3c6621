"""Fine-tuning: one loop for every model; methods (what is trained), losses (towards what) and schedules are rooms."""
