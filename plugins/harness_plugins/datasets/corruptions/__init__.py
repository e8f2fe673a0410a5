"""The corruptions of Hendrycks & Dietterich (ICLR 2019) over any image dataset: computed on access, always the same."""
