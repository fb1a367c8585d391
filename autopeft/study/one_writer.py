"""Optuna's storage in a database, made fast for a process that alone writes its study's trials.

Before each value that it adds, Optuna asks the database whether another process has added it: some forty statements for
a trial. A study's process need not ask: its trials are in memory too, and were checked there.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.storages._rdb.models import (
        BaseModel,
        TrialModel,
        TrialSystemAttributeModel,
        TrialUserAttributeModel,
    )
    from optuna.trial import FrozenTrial
    from sqlalchemy.orm import Session

    AttributeModel = type[TrialSystemAttributeModel] | type[TrialUserAttributeModel]


class OneWriterStorage(RDBStorage):
    """A database in which nobody else changes the trials that this process makes."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what the block changes in one transaction."""
        from sqlalchemy.orm import scoped_session, sessionmaker

        usual = self.scoped_session
        with self.engine.begin() as connection:
            # A commit within the block leaves the connection's transaction open.
            self.scoped_session = scoped_session(sessionmaker(connection, join_transaction_mode="rollback_only"))
            try:
                yield
            finally:
                self.scoped_session = usual

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> TrialModel:
        """A new trial, with all that the template has in one statement for each table."""
        if template_trial is None:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        from optuna.storages._rdb import models

        trial = models.TrialModel(
            study_id=study_id,
            number=None,
            state=template_trial.state,
            datetime_start=template_trial.datetime_start,
            datetime_complete=template_trial.datetime_complete,
        )
        session.add(trial)
        session.flush()  # which gives it its id
        its: Any = trial.trial_id
        params, kinds = template_trial.params, template_trial.distributions
        rows = [_of_param(name, kind.to_internal_repr(params[name]), kind) for name, kind in kinds.items()]
        _add(session, models.TrialParamModel, its, rows)
        _add(session, models.TrialUserAttributeModel, its, _of_attributes(template_trial.user_attrs))
        _add(session, models.TrialSystemAttributeModel, its, _of_attributes(template_trial.system_attrs))
        for objective, value in enumerate(template_trial.values or ()):
            self._set_trial_value_without_commit(session, trial, objective, value)
        for step, score in template_trial.intermediate_values.items():
            self._set_trial_intermediate_value_without_commit(session, its, step, score)
        trial.number = trial.count_past_trials(session)
        return trial

    def _set_trial_param_without_commit(
        self,
        session: Session,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,
    ) -> None:
        from optuna.storages._rdb.models import TrialParamModel

        _add(session, TrialParamModel, trial_id, [_of_param(param_name, param_value_internal, distribution)])

    def _set_trial_value_without_commit(
        self, session: Session, trial: TrialModel, objective: int, value: float
    ) -> None:
        from optuna.storages._rdb.models import TrialValueModel

        stored, kind = TrialValueModel.value_to_stored_repr(value)
        row = {"objective": objective, "value": stored, "value_type": kind}
        its: Any = trial.trial_id
        _add(session, TrialValueModel, its, [row])

    def _set_trial_intermediate_value_without_commit(
        self, session: Session, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        from optuna.storages._rdb.models import TrialIntermediateValueModel

        stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        _add(session, TrialIntermediateValueModel, trial_id, [row])

    def _set_trial_attr_without_commit(
        self, session: Session, model_cls: AttributeModel, trial_id: int, key: str, value: Any
    ) -> None:
        """An attribute may be set again; to ask for it is cheaper than SQLAlchemy's `INSERT … ON CONFLICT`."""
        found: Any = session.query(model_cls).filter_by(trial_id=trial_id, key=key).one_or_none()
        if found is None:
            _add(session, model_cls, trial_id, _of_attributes({key: value}))
        else:
            found.value_json = json.dumps(value)


def _of_param(name: str, value: float, kind: BaseDistribution) -> dict[str, Any]:
    return {"param_name": name, "param_value": value, "distribution_json": distribution_to_json(kind)}


def _of_attributes(attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]


def _add(session: Session, model: type[BaseModel], trial_id: int, rows: list[dict[str, Any]]) -> None:
    """Add a trial's rows to a table."""
    from sqlalchemy import insert

    if rows:
        session.execute(insert(model), [{"trial_id": trial_id, **row} for row in rows])
