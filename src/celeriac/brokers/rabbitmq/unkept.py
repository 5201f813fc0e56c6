"""The sentences of the conformance suite that RabbitMQ cannot keep, and why: names of tests. See ``Harness.exempt``.

What it does instead is stated in tests/integration/test_rabbitmq_broker.py.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["UNKEPT", "UNKEPT_BESIDE"]

_REQUEUES = "RabbitMQ: a lease ends with its connection, not by time; the server gives back what it held"
_COUNTS = "RabbitMQ: tells over AMQP how many are ready, and neither leased, delayed nor dead ones of a queue"
_PRIORITIES = "RabbitMQ: the higher priority first, within one queue that is declared with x-max-priority"
_LEDGER = "RabbitMQ: keeps no ledger"
_DELAYS = "RabbitMQ: delays by whole seconds, and the order among those that are due is that of their queue"
_RAW = "RabbitMQ: a dead letter's raw bytes are kombu's envelope, and those of a delivery its body"

#: Alone.
UNKEPT: Mapping[str, str] = {
    # leases
    "test_woken_by_a_restored_lease": _REQUEUES,
    "test_malformed_bytes_go_back_unchanged": _REQUEUES,
    "test_extend_renews_from_now": _REQUEUES,
    "test_maintain_is_useful_again_when_a_lease_ends": _REQUEUES,
    "test_an_expired_lease_is_restored_with_marks": _REQUEUES,
    "test_several_expired_leases_come_in_order": _REQUEUES,
    "test_a_lone_suspect_is_the_culprit": _REQUEUES,
    "test_a_suspect_among_others_is_no_culprit": _REQUEUES,
    "test_a_late_settle_is_refused_and_changes_nothing": _REQUEUES,
    "test_two_maintainers_do_no_harm": _REQUEUES,
    "test_another_takes_over_from_one_that_vanished": _REQUEUES,
    "test_orphans_are_exactly_the_dead_owners": _REQUEUES,
    "test_leases_stay_when_their_broker_is_closed": _REQUEUES,
    "test_after_a_cut_everything_goes_on": _REQUEUES,
    "test_random_histories": _REQUEUES,
    # counts
    "test_odd_queue_names": _COUNTS,
    **{
        f"test_settling_twice_is_a_refusal[dead-{way}]": _COUNTS for way in ("accept", "release", "back", "due", "dead")
    },
    "test_a_mixed_batch_refuses_exactly_what_is_not_held": _COUNTS,
    "test_a_replayed_dead_letter_runs_again": _COUNTS,
    "test_dropped_dead_letters_are_gone": _COUNTS,
    "test_dead_letters_beyond_the_limit_are_dropped": _COUNTS,
    "test_dead_letters_past_their_time_are_dropped": _COUNTS,
    "test_dead_letters_beyond_their_bytes_are_dropped": "RabbitMQ: x-max-length-bytes counts bodies, not headers",
    "test_batches_beyond_a_thousand": _COUNTS,
    "test_depth_counts": _COUNTS,
    "test_purge_drops_ready_and_scheduled": _COUNTS,
    # priorities
    "test_a_publisher_feeds_a_broker": _PRIORITIES,
    "test_a_stage_is_published_in_one_step": _PRIORITIES,
    "test_release_keeps_the_priority": _PRIORITIES,
    "test_priorities_hold_for_due_ones": _PRIORITIES,
    "test_priorities_are_kombus_steps": _PRIORITIES,
    "test_a_priority_step_goes_across_queues": _PRIORITIES,
    # the ledger, rules and limits: those of another server are put around this broker
    "test_a_key_is_free_when_its_time_is_over": _LEDGER,
    "test_it_keeps_priority_and_due_time": _LEDGER,
    "test_it_wakes_a_waiting_claim": _LEDGER,
    "test_threads_that_publish_under_one_key": _LEDGER,
    "test_processes_that_publish_under_one_key": _LEDGER,
    "test_nobody_there_is_said_in_time": _LEDGER,
    "test_many_workers_at_once": _LEDGER,
    "test_a_replay_takes_a_lock_in_the_same_step": _LEDGER,
    # the rest
    "test_all_may_begin_at_once": "RabbitMQ: keeps no results",
    "test_two_hundred_claimers_without_a_double_lease": "RabbitMQ: what was pushed and not claimed is back in 50 ms",
    "test_the_earliest_first": _DELAYS,
    "test_odd_ids[long]": "RabbitMQ: a header's name has 255 bytes at most",
    "test_undecodable_letters_are_skipped": "RabbitMQ: what is injected there is JSON, and so it can be read",
    "test_foreign_headers_and_extras_are_no_harm": "RabbitMQ: headers are the server's own, not part of an envelope",
    "test_a_page_of_dead_letters": _RAW,
    "test_a_dead_letter_holds_everything": _RAW,
    "test_many_dead_letters_are_looked_at_in_bounded_steps": "RabbitMQ: cannot search, each page looks at all",
}

#: With the ledger of another server beside it.
UNKEPT_BESIDE: Mapping[str, str] = {
    **{name: why for name, why in UNKEPT.items() if why != _LEDGER},
    "test_it_keeps_priority_and_due_time": _PRIORITIES,
    "test_a_fenced_one_frees_nothing": _REQUEUES,
    "test_settling_and_losing_a_lease_keep_a_lock": _REQUEUES,
}
