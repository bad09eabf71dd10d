"""At which threshold pictures, tables and pages read a measure that has several, unless the caller names one."""

SINK = 0.3  # share of attention from which a key is a sink, as in the published rates Sink_1^0.3
# A chord of 0.8 is an angle of 47 degrees: there a trained decoder shows more than one cluster and fewer than tokens.
RADIUS = 0.8
