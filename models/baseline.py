"""The simple rule that every model has to beat: a linear model of recency, frequency, T and monetary value."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.propensity import Floats

RFM = ("purchase_recency_days", "purchase_frequency", "purchase_tenure_days", "purchase_monetary_value")


def rfm_scores(train: pd.DataFrame, label: pd.Series, test: pd.DataFrame, *, is_amount: bool) -> Floats:
    """Fit on `train` and score `test`: a logistic regression for a probability, a Poisson regression for an amount.

    The RFM columns that are there are taken as logarithms, since all of them are skewed; unknown counts as none.
    """
    columns = [name for name in RFM if name in train.columns]

    def logs(frame: pd.DataFrame) -> Floats:
        return np.asarray(np.log1p(frame[columns].fillna(0.0).clip(lower=0.0)), dtype=np.float64)

    model = PoissonRegressor(alpha=1e-3, max_iter=500) if is_amount else LogisticRegression(max_iter=500)
    fitted = make_pipeline(StandardScaler(), model).fit(logs(train), label.clip(lower=0))
    found = fitted.predict(logs(test)) if is_amount else fitted.predict_proba(logs(test))[:, 1]
    return np.asarray(found, dtype=np.float64)
