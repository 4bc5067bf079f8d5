"""A simulated engine: one continuous-batching core, in virtual time or in real time behind HTTP."""
