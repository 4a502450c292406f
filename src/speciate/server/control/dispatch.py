"""What the command line asks of a running daemon, beside calling tools: a table of actions, each with its request.

These are not tools: an agent must not reach them through MCP, approvals above all. The table says which actions only a
person may cause; if a key is enrolled, they need that person's signature (`governance/authorization.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from speciate.errors import Code, SpeciateError, unknown
from speciate.governance import authorization
from speciate.governance.audit import Proof
from speciate.server.control import approval_actions, daemon_actions, model_actions, use_case_actions
from speciate.server.control.action import Answer, ControlContext, OpenAction, Person, PersonAction
from speciate.server.control.messages import (
    AllowRequest,
    ApprovalRequest,
    AuditRequest,
    BackupRequest,
    ConsentRequest,
    DecideRequest,
    EnrollRequest,
    FingerprintRequest,
    HostRequest,
    LabelsRequest,
    ModelRequest,
    OpenRequest,
    OverrideRequest,
    PolicyRequest,
    PromotionRequest,
    QuestionRequest,
    RefreshRequest,
    Request,
    RevokeRequest,
    RevokeTokenRequest,
    StartDeploymentRequest,
    SwitchRequest,
    TokenRequest,
    TraceRequest,
    TrailRequest,
    UseCaseRequest,
    WhyRequest,
)
from speciate.server.protocol import Hello
from speciate.server.untrusted import clean_text
from speciate.unix_sockets import Account, own_account
from speciate.workspace import filesystem

ENDING = {"stop", "drain", "policy", "host", "settings"}
"""Actions after whose answer the daemon leaves."""
_LONGEST_NAME = 100


def perform(context: ControlContext, request: Hello, caller: Account | None = None) -> Answer:
    """Do what `request["action"]` names and return the answer. In a worker thread. Raises SpeciateError.

    `caller`: who is at the other end, by the kernel, or who came by a token; None: this process itself.
    """
    try:
        return _perform(context, request, caller)
    except SpeciateError:
        raise
    except Exception as error:
        if (refusal := filesystem.explain(error, context.workspace.folders.root)) is None:
            raise
        raise refusal from error


def _perform(context: ControlContext, request: Hello, caller: Account | None) -> Answer:
    account = caller or own_account()
    action, name = _find_action(str(request.get("action"))), account.name
    typed = _parse(action, {**request, "by": name, "uid": account.uid, "groups": sorted(account.groups)})
    if isinstance(action, OpenAction):
        return action.run(context, typed)
    authority = authorization.authority_of(context.workspace)
    if account.remote and not authority.required:  # else a token would be worth a person
        raise SpeciateError(
            Code.REFUSED,
            "No key is enrolled here, so nobody could tell a person who comes over the network from a program.",
            "On the machine itself: speciate key enroll",
        )
    question = action.question(context, typed)
    about = question.arguments.get("use_case")
    if account.use_cases and question.decision != "key enroll" and about not in account.use_cases:
        raise SpeciateError(
            Code.REFUSED,
            f"The token is for {', '.join(account.use_cases)}; this is of {about or 'the whole workspace'}.",
            "Whoever issues the tokens can give another.",
        )
    signed = authority.check(question, request.get("signed"))
    proof: Proof = {"signed": signed.model_dump()} if signed else {}
    if (claimed := request.get("by")) not in (None, name):
        proof["claimed"] = clean_text(str(claimed))[:_LONGEST_NAME]
    answer = action.run(context, typed, Person(name, proof))
    if signed and isinstance(confirmed := signed.shown.get("settings"), dict):
        authority.confirm(confirmed)
    return answer


def _find_action(name: str) -> OpenAction[Any] | PersonAction[Any]:
    if name not in ACTIONS:
        raise unknown("action", name, ACTIONS, "Run `speciate --help`.")
    return ACTIONS[name]


def _parse(action: OpenAction[Any] | PersonAction[Any], request: Mapping[str, Any]) -> Any:
    try:
        return action.request.model_validate(request)
    except ValidationError as error:
        problem = error.errors()[0]
        raise SpeciateError(
            Code.INVALID,
            f"The request is not valid: {'.'.join(map(str, problem['loc']))}: {problem['msg']}.",
            "Install the same version on both sides: pip install -U speciate; then `speciate stop`.",
        ) from None


def _question(context: ControlContext, request: QuestionRequest) -> Answer:
    """What the action `about` would do, and a challenge for the answer."""
    action = _find_action(name := str(request.about.get("action")))
    if isinstance(action, OpenAction):
        raise SpeciateError(Code.INVALID, f"{name!r} needs no person.", "Call it without a question.")
    question = action.question(context, _parse(action, request.about))
    return authorization.authority_of(context.workspace).ask(question).document()


_READS = "it only reads"
ACTIONS: dict[str, OpenAction[Any] | PersonAction[Any]] = {
    "status": OpenAction(Request, daemon_actions.status, _READS),
    "stop": OpenAction(
        Request, daemon_actions.stop, "a kill does the same; runs continue, and the next client starts a daemon"
    ),
    "drain": OpenAction(Request, daemon_actions.drain, "as stop: a newer version takes over"),
    "question": OpenAction(QuestionRequest, _question, _READS),
    "policy": PersonAction(PolicyRequest, daemon_actions.change_policy, daemon_actions.about_policy),
    "settings": PersonAction(Request, daemon_actions.confirm_settings, daemon_actions.about_settings),
    "host": PersonAction(HostRequest, daemon_actions.change_host, daemon_actions.about_host),
    "version": OpenAction(ModelRequest, model_actions.show_version, _READS),
    "signed": PersonAction(ModelRequest, model_actions.record_signature, model_actions.about_signature),
    "backup": OpenAction(
        BackupRequest, daemon_actions.make_backup, "a copy, which this account could make without the daemon"
    ),
    "resume": OpenAction(
        Request, daemon_actions.resume, "jobs that were asked for already; control_job does it one by one"
    ),
    "refresh": OpenAction(
        RefreshRequest,
        model_actions.refresh,
        "asks public sources what models there are, and sends nothing of the workspace",
    ),
    "fingerprint": OpenAction(
        FingerprintRequest, model_actions.ask_fingerprints, "spends only what a person allowed: speciate allow"
    ),
    "approval": OpenAction(ApprovalRequest, approval_actions.show_approval, _READS),
    "approve": PersonAction(
        DecideRequest, approval_actions.decide(approve=True), approval_actions.about_approval("approve")
    ),
    "deny": PersonAction(
        DecideRequest, approval_actions.decide(approve=False), approval_actions.about_approval("deny")
    ),
    "open": OpenAction(
        OpenRequest,
        approval_actions.open_pages,
        "looks; one for deciding looks until an enrolled key signs in the browser",
    ),
    "open decide": PersonAction(OpenRequest, approval_actions.open_deciding, approval_actions.about_deciding),
    "consent": OpenAction(ConsentRequest, approval_actions.show_consent, _READS),
    "consents": OpenAction(Request, approval_actions.list_consents, _READS),
    "allow": PersonAction(AllowRequest, approval_actions.allow, approval_actions.about_consent),
    "disallow": PersonAction(ConsentRequest, approval_actions.disallow, approval_actions.about_disallowing),
    "keys": OpenAction(Request, approval_actions.list_keys, _READS),
    "key enroll": PersonAction(EnrollRequest, approval_actions.enroll_key, approval_actions.about_enrollment),
    "key revoke": PersonAction(RevokeRequest, approval_actions.revoke_key, approval_actions.about_revocation),
    "tokens": OpenAction(Request, approval_actions.list_tokens, _READS),
    "token create": PersonAction(TokenRequest, approval_actions.issue_token, approval_actions.about_token),
    "token revoke": OpenAction(
        RevokeTokenRequest, approval_actions.revoke_token, "it only takes away, and must not wait for a key"
    ),
    "audit": OpenAction(AuditRequest, approval_actions.verify_audit, _READS),
    "inventory": OpenAction(Request, daemon_actions.inventory, _READS),
    "accept": PersonAction(Request, approval_actions.accept_trail, approval_actions.about_trail),
    "ledger": OpenAction(Request, use_case_actions.show_ledger, _READS),
    "trail": OpenAction(TrailRequest, approval_actions.show_trail, _READS),
    "promotion": OpenAction(PromotionRequest, use_case_actions.show_promotion, _READS),
    "override": PersonAction(OverrideRequest, use_case_actions.override, use_case_actions.about_override),
    "slot start": OpenAction(
        StartDeploymentRequest, use_case_actions.start_deployment, "serves what is in production already"
    ),
    "slot stop": OpenAction(
        UseCaseRequest, use_case_actions.stop_deployment, "a kill does the same; what is in production stays"
    ),
    "slots": OpenAction(Request, use_case_actions.list_deployments, _READS),
    "labels": OpenAction(LabelsRequest, use_case_actions.label, "feedback, which record_feedback takes over MCP, too"),
    "trace": OpenAction(TraceRequest, model_actions.show_trace, _READS),
    "watches": OpenAction(Request, use_case_actions.list_watches, _READS),
    "watch": OpenAction(UseCaseRequest, use_case_actions.show_watch, _READS),
    "why": OpenAction(WhyRequest, use_case_actions.why, _READS),
    "watch switch": OpenAction(
        SwitchRequest, use_case_actions.switch_watch, "as watch_use_case, which tools may call over MCP, too"
    ),
}
