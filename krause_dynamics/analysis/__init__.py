"""Analysis of arrays and trajectories, whoever produced them: observables, clusters, measures, operators, energies."""
