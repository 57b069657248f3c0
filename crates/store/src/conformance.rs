//! What every store must do, as test cases that any implementation runs.
//!
//! A test file gives a function that opens a fresh database and gets one test per case:
//!
//! ```ignore
//! store::conformance!(crate::open); // async fn open() -> impl store::conformance::Subject
//! ```
//!
//! A case that fails panics.

pub mod artifacts;
pub mod audit;
pub mod bindings;
pub mod closing;
pub mod fleets;
pub mod hostile;
pub mod idempotency;
pub mod keys;
pub mod listing;
pub mod sessions;
pub mod support;
pub mod system;
pub mod tenancy;
pub mod triggers;
pub mod turns;
pub mod webhooks;

use std::sync::Arc;

use async_trait::async_trait;
use wire::OrgId;

use crate::{OutboxMessage, Store};

/// A database under test, fresh.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store on it.
    fn store(&self) -> Arc<dyn Store>;

    /// Another store on the same database, as another process would have.
    async fn reopen(&self) -> Arc<dyn Store>;

    /// What the org's outbox holds, in order.
    async fn outbox(&self, org: OrgId) -> Vec<OutboxMessage>;
}

/// One test for each case; takes the path of the function that opens a fresh database.
#[macro_export]
macro_rules! conformance {
    ($open:path) => {
        $crate::conformance! { @cases $open;
            sessions:
                a_session_is_read_back_as_it_was_given,
                an_update_changes_state_result_outbox_and_audit,
                a_torn_down_session_is_never_updated_again,
                a_session_that_is_not_there_is_not_updated,
                failing_updates_among_good_ones_leave_no_trace,
                a_session_id_that_is_taken_fails_alone,
                a_record_of_another_org_is_refused,
                a_result_is_absent_until_it_is_recorded_and_then_stays,
                an_absent_sandbox_leaves_the_recorded_one,
                a_write_whose_caller_went_away_is_whole;
            listing:
                pages_have_no_duplicates_and_no_gaps_while_others_insert,
                phases_and_labels_filter_alone_and_together,
                a_cursor_goes_on_with_another_filter,
                a_cursor_that_was_not_given_out_is_refused;
            idempotency:
                the_same_request_gets_the_session_that_it_made,
                another_request_with_the_same_key_is_a_conflict,
                what_a_key_has_made_is_found_without_a_write,
                a_key_belongs_to_one_org,
                concurrent_creations_with_one_key_make_one_session,
                an_old_key_is_forgotten_and_a_young_one_is_kept;
            audit:
                events_come_back_sealed_and_are_read_in_order,
                two_thousand_concurrent_writes_make_one_chain,
                two_stores_on_one_database_make_one_chain,
                an_unknown_org_is_empty_and_cannot_be_written,
                a_page_goes_on_behind_a_position;
            keys:
                keys_are_listed_newest_first_with_the_revoked_ones,
                a_key_is_revoked_once,
                a_key_id_that_is_taken_fails_alone;
            bindings:
                a_binding_is_read_back_as_it_was_given,
                a_name_is_taken_once_in_an_org_and_free_again_after_a_deletion,
                a_binding_id_that_is_taken_fails_alone,
                a_change_is_made_only_on_what_it_was_decided_on,
                a_deleted_binding_is_gone_for_good,
                bindings_are_listed_by_name_in_pages_without_gaps,
                a_cursor_of_another_list_of_bindings_is_refused;
            triggers:
                a_trigger_is_read_back_changed_and_deleted,
                a_firing_is_taken_up_once_by_whoever_is_first,
                a_firing_that_overlaps_waits_for_its_turn,
                a_message_is_taken_once_while_it_is_remembered,
                old_firings_go_and_what_is_under_way_stays,
                no_org_reaches_anothers_triggers;
            webhooks:
                a_message_is_taken_once_until_its_lease_ends,
                concurrent_takers_share_what_is_due,
                messages_of_one_session_go_in_their_order_and_hold_up_no_other,
                a_delivery_shows_what_became_of_it_and_is_tried_again_by_hand,
                what_is_over_is_forgotten_when_it_is_old_and_what_waits_is_not,
                deliveries_are_listed_newest_first_and_filtered,
                no_org_reaches_anothers_deliveries_or_secret,
                a_webhook_secret_is_replaced_by_one_version_at_a_time,
                where_to_tell_of_a_session_is_known_until_its_end;
            turns:
                a_turn_is_read_back_as_it_was_given_with_its_audit_events,
                a_turn_that_has_ended_is_never_changed_again,
                only_a_session_that_is_not_torn_down_gets_turns,
                turns_are_listed_in_order_in_pages_without_gaps,
                a_page_of_large_turns_ends_early;
            fleets:
                a_fleet_is_read_back_as_it_was_given_with_all_of_its_members,
                a_member_is_what_its_session_is,
                a_member_gets_one_session_and_none_once_its_fleet_was_ended,
                a_fleet_finishes_once,
                the_same_request_gets_the_fleet_that_it_made,
                fleets_are_listed_newest_first_in_pages_of_their_own,
                a_page_of_results_ends_where_it_gets_large;
            artifacts:
                artifacts_are_recorded_with_the_end_and_found_by_path,
                no_org_reaches_anothers_artifacts,
                old_artifacts_and_those_over_a_quota_are_told_oldest_first;
            tenancy:
                no_read_reaches_another_orgs_rows,
                no_write_reaches_another_orgs_rows;
            hostile:
                text_from_strangers_comes_back_as_it_went_in,
                labels_from_strangers_are_found_by_themselves_only,
                the_deepest_result_that_is_let_in_is_read_back,
                audit_data_that_is_accepted_verifies;
            system:
                unfinished_lists_exactly_what_is_not_torn_down,
                an_org_is_made_once_per_name,
                an_org_id_that_is_taken_fails_alone,
                the_database_answers;
            closing:
                every_call_on_a_closed_store_says_so,
                what_was_answered_before_the_close_is_there_afterwards;
        }
    };
    (@cases $open:path; $($module:ident: $($case:ident),+;)+) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let subject = $open().await;
                    $crate::conformance::$module::$case(&subject).await;
                }
            )+
        }
    )+};
}
