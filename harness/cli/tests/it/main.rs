//! What dmarig makes of bad input, of QEMUs and guests that misbehave, and of being interrupted:
//! one clear message, the right end state, the documented exit code, nothing left behind, and no
//! other cell harmed.

mod analyzing;
mod bisecting;
mod building;
mod cases;
mod compare;
mod dashboards;
mod disks;
mod fake_probe;
mod fake_qemu;
mod guests;
mod hand_over;
mod histories;
mod kernels;
mod night;
mod place;
mod probes;
mod qemus;
mod results;
mod scripts;
mod signals;
mod standing;
mod trees;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

macro_rules! trials {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        vec![$($(
            Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
                $module::$name();
                Ok(())
            }),
        )*)*]
    };
}

fn main() -> ExitCode {
    // The tests make links to this binary that QEMUs are taken from.
    if let Some(script) = fake_qemu::Script::of_this_process() {
        return fake_qemu::play(script);
    }
    if let Some(script) = fake_probe::ProbeScript::of_this_process() {
        return fake_probe::play(script);
    }
    if let Some(fault) = fake_probe::relay::Fault::of_this_process() {
        return fake_probe::relay::play(fault);
    }
    if hand_over::is_program() {
        return hand_over::play();
    }
    let trials = trials! {
        cases:
            mistakes_are_told_together_with_their_places,
            an_axis_twice_is_refused,
            a_matrix_of_nothing_is_refused,
            two_cases_of_one_name_are_refused,
            a_condition_that_never_holds_is_refused,
            a_case_file_of_ten_megabytes_is_refused,
            bombs_are_refused,
            words_that_are_wrong_are_refused;
        compare:
            two_qemus_are_run_in_turn_and_judged,
            a_run_is_judged_beside_its_baseline,
            a_side_that_comes_to_nothing_stops_it,
            a_candidate_that_fails_by_itself_fails,
            a_comparison_is_told_from_its_record,
            recorded_runs_are_compared_and_not_judged,
            what_can_not_be_compared_is_told;
        dashboards:
            recorded_runs_become_a_site,
            wrong_places_are_told,
            a_served_site_is_made_anew_as_records_come;
        analyzing:
            logs_are_told_with_their_exit_codes,
            packed_and_piped_logs_are_read,
            a_faults_reason_is_told_in_our_words_and_the_kernels,
            a_recorded_runs_logs_are_read,
            a_record_that_can_not_be_read_is_told_as_one,
            hostile_logs_steer_no_terminal;
        bisecting:
            the_guilty_commit_is_found_and_the_clone_left_as_it_was,
            killed_and_gone_on_with_it_finds_the_same,
            trouble_of_the_host_blames_nobody,
            wrong_words_are_told_before_anything_is_built,
            steps_speak_gits_language,
            git_bisect_run_finds_the_same;
        building:
            killed_while_any_object_is_written_builds_the_same_afterwards,
            wrong_words_are_told_before_a_source_is_fetched;
        kernels:
            what_is_no_kernel_harms_no_other_cell,
            what_a_kernel_lacks_is_told_by_name,
            a_kernel_that_was_not_fetched_is_told_how_to_get;
        qemus:
            a_missing_one_harms_no_other_cell,
            one_that_can_not_be_asked,
            one_that_is_too_old,
            one_that_dies,
            one_that_speaks_no_qmp,
            one_that_refuses_or_falls_silent,
            one_that_ends_by_force_alone,
            one_that_stops_its_guest,
            registers_that_contradict_properties,
            panics,
            an_agent_that_never_comes,
            a_reboot,
            a_workload_without_end,
            a_flood_on_the_console,
            a_flood_of_short_lines_makes_no_large_record,
            a_flood_in_the_trace_is_counted_exactly,
            what_is_no_message,
            messages_that_nobody_asked_for,
            a_log_without_end;
        probes:
            one_that_serves,
            one_that_dies,
            one_that_stalls,
            one_that_says_what_is_no_answer,
            one_that_loses_its_client,
            one_that_qemu_complains_of,
            one_that_hangs_is_to_blame_for_a_guest_that_does,
            what_it_saw_is_judged;
        night:
            a_relayed_probe_harms_nothing_in_a_guest,
            a_probe_with_a_bad_header_in_a_guest,
            a_probe_with_a_bad_size_in_a_guest,
            a_probe_that_truncates_in_a_guest,
            a_probe_that_answers_nothing_in_a_guest,
            a_probe_that_answers_too_much_in_a_guest,
            a_probe_that_answers_without_end_in_a_guest,
            a_probe_that_stalls_in_a_guest,
            a_probe_that_drops_its_socket_in_a_guest,
            a_probe_that_dies_in_a_guest,
            a_real_history_is_bisected;
        disks:
            a_full_disk_for_the_results_is_an_error,
            nobody_who_is_told_is_no_error,
            a_directory_that_can_not_be_made,
            a_place_too_deep_for_sockets,
            a_full_file_system,
            a_full_disk_under_test_in_a_guest;
        guests:
            no_init_in_a_guest,
            a_hanging_program_in_a_guest,
            a_flooded_console_in_a_guest,
            garbage_on_the_agents_uart_in_a_guest,
            a_reboot_in_a_guest,
            a_program_that_fails_in_a_guest,
            a_program_that_is_killed_in_a_guest,
            metrics_in_a_guest;
        hand_over:
            a_module_that_is_asked_for_is_loaded_with_what_it_needs_in_a_guest,
            a_module_that_there_is_none_of,
            a_disk_goes_to_vfio_and_comes_back_in_a_guest;
        histories:
            runs_go_in_and_are_told,
            comparisons_are_ratios_of_pairs,
            old_records_go_when_they_are_in,
            histories_of_machines_come_together,
            one_that_can_not_be_merged_keeps_no_other_out,
            alerts_are_told_and_set,
            a_cell_that_never_passed_is_an_alert_until_it_does,
            wrong_words_are_told;
        results:
            judging_again_gives_the_same,
            a_reader_that_has_gone_is_no_error,
            the_plan_is_what_was_run,
            by_hand_it_runs_in_a_guest;
        scripts:
            a_night_fails_by_what_it_was_asked_to;
        signals:
            the_first_ends_the_run_and_keeps_what_was_judged,
            the_second_ends_it_at_once,
            the_first_ends_a_qemu_that_never_connects,
            the_first_ends_a_qemu_that_never_answers,
            a_killed_run_leaves_no_qemu_and_a_readable_record;
        standing:
            a_run_is_judged_by_those_before_it,
            other_machines_and_bare_times_are_not_taken,
            a_baseline_decides_where_there_is_one;
        trees:
            one_that_was_not_fetched_is_told_how_to_get,
            the_list_names_them_and_a_wrong_name_is_refused,
            what_is_here_stays_where_only_the_missing_is_fetched,
            nothing_of_the_system_is_loaded,
            each_runs_a_kernel_in_a_guest;
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
