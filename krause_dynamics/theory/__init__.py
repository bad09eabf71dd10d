"""Closed forms and quadratures of the theory of attention dynamics and bounded confidence.

One function per result: its docstring holds the formula, the source and the limits of validity. Nothing here simulates
or solves a particle system; ``python -m krause_dynamics.theory_table`` compares these numbers with simulation.
"""

from krause_dynamics.theory.antipodal import AntipodalRates, antipodal_rates
from krause_dynamics.theory.bipartite import BipartiteRates, bipartite_rates
from krause_dynamics.theory.causal import (
    causal_gap_rate,
    causal_gap_time,
    causal_layer_factors,
    causal_rates,
    expected_renyi_centres,
    expected_strong_renyi_centres,
    parking_constant,
)
from krause_dynamics.theory.clusters_on_circle import (
    boolean_limit_rank,
    is_single_cluster_proved,
    regular_cluster_eigenvalues,
    three_cluster_eigenvalue,
)
from krause_dynamics.theory.common_noise import common_noise_exponent, common_noise_moments, common_noise_spectrum
from krause_dynamics.theory.consensus_flow import consensus_attraction, consensus_flow
from krause_dynamics.theory.context_scaling import (
    critical_scaling,
    gram_map,
    gram_map_limit,
    orthogonal_critical_scaling,
    rank_collapse_step,
    self_weight,
    uniform_keys_scaling,
)
from krause_dynamics.theory.contraction import (
    attention_contraction_bound,
    dobrushin_bound,
    score_oscillation,
    softmax_total_variation_bound,
)
from krause_dynamics.theory.density_modes import density_modes_leading_order, expected_density_modes_on_line
from krause_dynamics.theory.dispersion import (
    Front,
    dispersion,
    fastest_wave,
    frozen_graph_multiplier,
    growth_rate,
    selected_front,
    step_multiplier,
)
from krause_dynamics.theory.entropy_collapse import expected_participation, freezing_beta, participation_limit
from krause_dynamics.theory.freezing import (
    CONSENSUS_BRANCH_POINTS,
    CONSENSUS_LOST,
    CONTINUOUS_BRANCH_POINTS,
    DUMBBELL_FREEZING_TIMES,
    RANDOM_START_THRESHOLD,
    UNIFORM_DENSITY_CLUSTERS,
    density_after_one_step,
    edge_jump,
    edge_speed,
    equally_spaced_final_sizes,
    equally_spaced_freezing_time,
    full_range_variance,
    two_cluster_stability_distance,
)
from krause_dynamics.theory.frozen_positions import frozen_position_angle
from krause_dynamics.theory.gaussian_closures import (
    dot_product_blow_up,
    dot_product_variance,
    gaussian_rule_deviation_step,
    gaussian_rule_variance,
)
from krause_dynamics.theory.hard_attention import hard_attention_positions, polygon_exit_probability
from krause_dynamics.theory.heads import HeadRates, multi_head_rates
from krause_dynamics.theory.held_clusters import holding_strength, neuron_holding_strength
from krause_dynamics.theory.layer_norm import layer_norm_early_gain, layer_norm_equiangular, layer_norm_late_gap
from krause_dynamics.theory.lifetimes import (
    cluster_angle_rate,
    cluster_lifetime,
    cluster_lifetime_asymptotic,
    gaussian_lifetime,
    gaussian_separation_rate,
)
from krause_dynamics.theory.lost_in_the_middle import (
    causal_response,
    recency_time,
    retrieval_profile,
    retrieval_time_bound,
)
from krause_dynamics.theory.low_temperature import (
    ModerateTimes,
    low_temperature_consensus_probability,
    low_temperature_flow,
    moderate_times,
)
from krause_dynamics.theory.low_temperature_lag import low_temperature_lag
from krause_dynamics.theory.massive_token import leading_share_bound, spectral_entropy_bound
from krause_dynamics.theory.modes import (
    expected_initial_modes,
    kernel_coefficient,
    large_beta_mode,
    mode_growth,
    switching_beta,
    winning_mode,
)
from krause_dynamics.theory.near_consensus import (
    band_eigenvalues,
    layer_factor,
    ring_eigenvalues,
    vit_allowed_pairs,
    vit_eigenvalues,
)
from krause_dynamics.theory.noisy_attention import (
    critical_attention_noise,
    is_transition_continuous,
    landau_quartic,
    linear_threshold,
    transition_order_threshold,
)
from krause_dynamics.theory.open_trees import open_tree_part_size, open_tree_parts
from krause_dynamics.theory.ordered_circle import attention_free_energy, circle_order_parameter, ordered_state
from krause_dynamics.theory.oscillators import (
    kuramoto_critical_coupling,
    kuramoto_locked_order,
    oscillator_energy,
    oscillator_energy_rate,
)
from krause_dynamics.theory.pair_attraction import strongest_attraction_angle
from krause_dynamics.theory.polygons import PolygonRates, polygon_rates
from krause_dynamics.theory.pre_norm import pre_norm_equiangular, pre_norm_exponents
from krause_dynamics.theory.propagation_of_chaos import (
    linear_model_error,
    quantile_start_error,
    sampling_rate_exponent,
)
from krause_dynamics.theory.random_attention import random_attention_bulk
from krause_dynamics.theory.random_value_deviation import random_value_deviation
from krause_dynamics.theory.random_values import (
    antipodal_threshold,
    random_value_closure,
    random_value_exponents,
    random_value_rate,
)
from krause_dynamics.theory.reversible import reversible_law, weight_floor
from krause_dynamics.theory.rotary import rotary_ring_eigenvalues
from krause_dynamics.theory.sinks import sink_mass_bound
from krause_dynamics.theory.stack_reach import StackReach, causal_influence, stack_influence, stack_reach
from krause_dynamics.theory.staircase import merging_times
from krause_dynamics.theory.tokens_on_sphere import (
    consensus_rate,
    equiangular_rate,
    equiangular_similarity,
    equiangular_time,
    gap_rate,
    kuramoto_order_parameter,
    orthogonal_similarity_without_temperature,
)
from krause_dynamics.theory.waves_and_noise import critical_noise, long_wave_critical_noise, winning_wave

__all__ = [
    "CONSENSUS_BRANCH_POINTS", "CONSENSUS_LOST", "CONTINUOUS_BRANCH_POINTS", "DUMBBELL_FREEZING_TIMES",
    "RANDOM_START_THRESHOLD", "UNIFORM_DENSITY_CLUSTERS", "AntipodalRates", "BipartiteRates", "Front", "HeadRates",
    "ModerateTimes", "PolygonRates", "StackReach", "antipodal_rates", "antipodal_threshold",
    "attention_contraction_bound", "attention_free_energy", "band_eigenvalues", "bipartite_rates",
    "boolean_limit_rank", "causal_gap_rate", "causal_gap_time", "causal_influence", "causal_layer_factors",
    "causal_rates", "causal_response", "circle_order_parameter", "cluster_angle_rate", "cluster_lifetime",
    "cluster_lifetime_asymptotic", "common_noise_exponent", "common_noise_moments", "common_noise_spectrum",
    "consensus_attraction", "consensus_flow", "consensus_rate", "critical_attention_noise", "critical_noise",
    "critical_scaling", "density_after_one_step", "density_modes_leading_order", "dispersion", "dobrushin_bound",
    "dot_product_blow_up", "dot_product_variance", "edge_jump", "edge_speed", "equally_spaced_final_sizes",
    "equally_spaced_freezing_time", "equiangular_rate", "equiangular_similarity", "equiangular_time",
    "expected_density_modes_on_line", "expected_initial_modes", "expected_participation", "expected_renyi_centres",
    "expected_strong_renyi_centres", "fastest_wave", "freezing_beta", "frozen_graph_multiplier",
    "frozen_position_angle", "full_range_variance", "gap_rate", "gaussian_lifetime", "gaussian_rule_deviation_step",
    "gaussian_rule_variance", "gaussian_separation_rate", "gram_map", "gram_map_limit", "growth_rate",
    "hard_attention_positions", "holding_strength", "is_single_cluster_proved", "is_transition_continuous",
    "kernel_coefficient", "kuramoto_critical_coupling", "kuramoto_locked_order", "kuramoto_order_parameter",
    "landau_quartic", "large_beta_mode", "layer_factor", "layer_norm_early_gain", "layer_norm_equiangular",
    "layer_norm_late_gap", "leading_share_bound", "linear_model_error", "linear_threshold",
    "long_wave_critical_noise", "low_temperature_consensus_probability", "low_temperature_flow",
    "low_temperature_lag", "merging_times", "mode_growth", "moderate_times", "multi_head_rates",
    "neuron_holding_strength", "open_tree_part_size", "open_tree_parts", "ordered_state",
    "orthogonal_critical_scaling", "orthogonal_similarity_without_temperature", "oscillator_energy",
    "oscillator_energy_rate", "parking_constant", "participation_limit", "polygon_exit_probability",
    "polygon_rates", "pre_norm_equiangular", "pre_norm_exponents", "quantile_start_error", "random_attention_bulk",
    "random_value_closure", "random_value_deviation", "random_value_exponents", "random_value_rate",
    "rank_collapse_step", "recency_time", "regular_cluster_eigenvalues", "retrieval_profile",
    "retrieval_time_bound", "reversible_law", "ring_eigenvalues", "rotary_ring_eigenvalues",
    "sampling_rate_exponent", "score_oscillation", "selected_front", "self_weight", "sink_mass_bound",
    "softmax_total_variation_bound", "spectral_entropy_bound", "stack_influence", "stack_reach", "step_multiplier",
    "strongest_attraction_angle", "switching_beta", "three_cluster_eigenvalue", "transition_order_threshold",
    "two_cluster_stability_distance", "uniform_keys_scaling", "vit_allowed_pairs", "vit_eigenvalues",
    "weight_floor", "winning_mode", "winning_wave",
]  # fmt: skip
