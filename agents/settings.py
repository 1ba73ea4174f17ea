"""Measured settings for Stable-Baselines3's PPO, to pass as ``PPO(policy, env, **settings)``."""

from typing import Any

LM_PPO: dict[str, Any] = dict(
    n_steps=64,
    batch_size=256,
    n_epochs=4,
    learning_rate=1e-3,
    gamma=0.95,
    gae_lambda=0.95,
    clip_range=0.2,
    ent_coef=0.01,
    vf_coef=0.5,
    max_grad_norm=1.0,
)
"""For ``LanguagePolicy`` on 8 environments: 512 steps and 8 updates an iteration."""

MLP_PPO: dict[str, Any] = dict(
    n_steps=32,
    batch_size=1024,
    n_epochs=4,
    learning_rate=1e-3,
    gamma=0.97,
    ent_coef=0.01,
    policy_kwargs=dict(net_arch=[128, 128]),
    device="cpu",
)
"""For ``MlpPolicy`` on 128 environments of a batched world."""
