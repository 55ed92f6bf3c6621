"""Fine-tuning: one loop for every model, with methods (what is trained), losses (towards what) and schedules as rooms."""
