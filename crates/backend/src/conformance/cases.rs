//! The rules, one case each.

mod cancellation;
mod desk;
mod files;
mod honest;
mod lifecycle;
mod limits;
mod runner;
mod terminals;
mod turns;

use futures::future::BoxFuture;

use super::context::{Checked, Context};

/// One rule.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) scope: Scope,
    pub(super) check: fn(Context) -> BoxFuture<'static, Checked>,
}

/// For what a rule is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Once.
    Backend,
    /// In each language.
    Language,
    /// Once, where the runner is a model that can be told to misbehave.
    Model,
}

/// `name: scope` for each function of that name in a module.
macro_rules! cases {
    ($($module:ident :: $name:ident: $scope:ident),+ $(,)?) => {
        /// All of them.
        pub(super) const ALL: &[Case] = &[$(Case {
            name: stringify!($name),
            scope: Scope::$scope,
            check: |context| Box::pin($module::$name(context)),
        }),+];
    };
}

cases! {
    lifecycle::a_prepared_sandbox_is_listed_and_belongs_to_nobody: Language,
    lifecycle::an_unknown_image_is_refused: Backend,
    lifecycle::killing_ends_a_running_program: Language,
    lifecycle::killing_a_prepared_sandbox_ends_it: Backend,
    lifecycle::a_sandbox_that_rested_is_as_good_as_any_and_ends_as_any: Backend,
    lifecycle::killing_twice_or_after_the_end_changes_nothing: Backend,
    lifecycle::everybody_who_waits_gets_the_same_answer: Backend,
    lifecycle::destroying_a_running_program_ends_it: Backend,
    lifecycle::destroying_twice_or_something_unknown_leaves_nothing: Backend,
    lifecycle::a_destroyed_sandbox_is_gone: Backend,
    lifecycle::closing_the_pipe_ends_the_sandbox: Backend,
    lifecycle::ten_sandboxes_at_once_do_not_notice_each_other: Backend,
    honest::a_program_is_heard_in_order_and_hands_back_its_last_result: Language,
    honest::an_exit_code_comes_back: Language,
    honest::an_exception_leaves_a_trace_and_code_one: Language,
    honest::a_signal_comes_back: Language,
    honest::arguments_and_environment_arrive_exactly_and_nothing_else_does: Language,
    honest::children_end_with_the_first_process: Language,
    honest::a_program_for_another_language_is_a_fault: Backend,
    honest::usage_is_plausible_and_stays_readable: Language,
    honest::files_within_the_limit_are_kept: Language,
    files::what_was_put_before_the_start_is_there_and_the_programs: Language,
    files::a_name_that_leads_out_is_refused: Backend,
    files::nothing_is_replaced: Backend,
    files::more_than_the_disk_holds_is_refused: Backend,
    desk::files_of_a_running_program_are_read_written_listed_and_removed: Language,
    desk::names_that_lead_out_are_refused_and_the_program_lives_on: Backend,
    desk::a_file_that_does_not_fit_is_refused_and_leaves_nothing: Backend,
    desk::a_program_that_was_stopped_leaves_its_files_to_a_host_that_wants_them: Language,
    desk::what_is_over_its_cpu_time_leaves_its_files_to_a_host_that_wants_them: Language,
    desk::what_is_over_its_memory_leaves_its_files_to_a_host_that_wants_them: Language,
    desk::a_grace_that_nobody_uses_ends: Backend,
    terminals::a_terminal_echoes_has_a_size_and_ends_with_its_exit_code: Language,
    terminals::a_terminal_that_nobody_reads_waits_and_holds_nothing_else_up: Backend,
    terminals::a_terminal_that_is_closed_ends_and_the_program_lives_on: Backend,
    limits::output_is_cut_at_its_limit: Language,
    limits::processes_over_the_limit_are_reported: Language,
    limits::threads_over_the_limit_are_reported: Language,
    limits::memory_over_the_limit_ends_it: Language,
    limits::cpu_time_over_the_limit_ends_it: Language,
    limits::files_over_the_limit_end_it: Language,
    turns::turns_share_what_they_set_and_tell_their_value: Language,
    turns::what_a_turn_wrote_and_handed_in_comes_before_its_end: Language,
    turns::a_failed_turn_is_told_and_the_session_lives: Language,
    turns::an_endless_turn_is_interrupted_and_its_state_is_kept: Language,
    turns::an_interrupt_of_a_turn_that_has_ended_does_nothing: Language,
    turns::leaving_the_process_ends_the_session: Language,
    turns::a_prelude_that_fails_ends_the_session: Language,
    turns::a_turn_that_may_not_come_is_a_fault: Backend,
    cancellation::a_dropped_prepare_leaves_what_is_listed_and_can_be_destroyed: Language,
    cancellation::a_dropped_assign_leaves_what_is_listed_and_can_be_destroyed: Backend,
    cancellation::a_dropped_wait_takes_nothing_away: Backend,
    cancellation::a_dropped_destroy_can_be_repeated: Backend,
    runner::an_unread_flood_waits_in_the_sandbox: Backend,
    runner::frames_that_no_honest_runner_sends_are_refused: Model,
    runner::a_runner_that_goes_away_or_is_silent_costs_its_own_sandbox_alone: Model,
}
