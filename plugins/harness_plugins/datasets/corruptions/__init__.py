"""The corruptions of Hendrycks & Dietterich (ICLR 2019) of any image dataset: computed on access, deterministic."""
