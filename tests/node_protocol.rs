//! The node protocol against real shells that every machine has: the program, its clean-up, its refusals.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod local_node;

use std::future::pending;
use std::sync::Arc;

use local_node::{
    DASH, Place, Shells, daemon, find, hostile, local_pulls, node, scenarios, unwatched,
};
use prepull::model::{Failure, FailureKind, Stage};
use prepull::node::run;

/// Debian's `sh` is dash; elsewhere `sh` may be bash, which the second round runs under its own name.
const SHELLS: [Shells; 2] = [
    DASH,
    Shells {
        login: "bash",
        sh: &["bash"],
    },
];

#[tokio::test]
async fn present_image_is_left_alone() {
    for shells in &SHELLS {
        scenarios::present_image_is_left_alone(shells).await;
    }
}

#[tokio::test]
async fn docker_gets_its_credentials_in_memory_and_they_go() {
    for shells in &SHELLS {
        scenarios::docker_gets_its_credentials_in_memory_and_they_go(shells).await;
    }
}

#[tokio::test]
async fn crictl_gets_its_credentials_in_its_environment() {
    for shells in &SHELLS {
        scenarios::crictl_gets_its_credentials_in_its_environment(shells).await;
    }
}

#[tokio::test]
async fn a_failing_pull_keeps_the_clients_words() {
    for shells in &SHELLS {
        scenarios::a_failing_pull_keeps_the_clients_words(shells).await;
    }
}

#[tokio::test]
async fn a_hanging_pull_is_ended_by_the_time_out() {
    for shells in &SHELLS {
        scenarios::a_hanging_pull_is_ended_by_the_time_out(shells).await;
    }
}

#[tokio::test]
async fn a_cancelled_pull_leaves_nothing() {
    for shells in &SHELLS {
        scenarios::a_cancelled_pull_leaves_nothing(shells).await;
    }
}

#[tokio::test]
async fn a_pull_that_nobody_asks_after_ends_with_its_lease() {
    for shells in &SHELLS {
        scenarios::a_pull_that_nobody_asks_after_ends_with_its_lease(shells).await;
    }
}

#[tokio::test]
async fn a_lost_pull_is_found_again() {
    for shells in &SHELLS {
        scenarios::a_lost_pull_is_found_again(shells).await;
    }
}

#[tokio::test]
async fn a_pull_that_is_taken_down_is_begun_anew() {
    for sh in [&["taskset", "1", "dash"], &["taskset", "1", "bash"]] {
        let shells = Shells { login: "dash", sh };
        scenarios::a_pull_that_is_taken_down_is_begun_anew(&shells).await;
    }
}

#[tokio::test]
async fn a_new_connection_takes_over() {
    for shells in &SHELLS {
        scenarios::a_new_connection_takes_over(shells).await;
    }
}

#[tokio::test]
async fn a_second_run_waits_for_the_first_ones_pull() {
    for shells in &SHELLS {
        scenarios::a_second_run_waits_for_the_first_ones_pull(shells).await;
    }
}

#[tokio::test]
async fn a_killed_viewer_loses_nothing() {
    for shells in &SHELLS {
        scenarios::a_killed_viewer_loses_nothing(shells).await;
    }
}

#[tokio::test]
async fn a_killed_supervisor_is_noticed() {
    for shells in &SHELLS {
        scenarios::a_killed_supervisor_is_noticed(shells).await;
    }
}

#[tokio::test]
async fn the_platform_asked_for_is_what_counts() {
    for shells in &SHELLS {
        scenarios::the_platform_asked_for_is_what_counts(shells).await;
    }
}

#[tokio::test]
async fn what_arrives_is_told_in_bytes() {
    for shells in &SHELLS {
        scenarios::what_arrives_is_told_in_bytes(shells).await;
    }
}

#[tokio::test]
async fn a_pull_without_progress_is_ended() {
    for shells in &SHELLS {
        scenarios::a_pull_without_progress_is_ended(shells).await;
    }
}

#[tokio::test]
async fn layers_that_docker_calls_done_are_told() {
    for shells in &SHELLS {
        scenarios::layers_that_docker_calls_done_are_told(shells).await;
    }
}

#[tokio::test]
async fn dockers_daemon_is_asked_and_no_file_holds_the_login() {
    for shells in &SHELLS {
        daemon::dockers_daemon_is_asked_and_no_file_holds_the_login(shells).await;
    }
}

#[tokio::test]
async fn what_the_daemon_tells_of_layers_is_told_in_bytes() {
    for shells in &SHELLS {
        daemon::what_the_daemon_tells_of_layers_is_told_in_bytes(shells).await;
    }
}

#[tokio::test]
async fn what_the_daemon_brought_is_counted_at_the_end() {
    for shells in &SHELLS {
        daemon::what_the_daemon_brought_is_counted_at_the_end(shells).await;
    }
}

#[tokio::test]
async fn what_only_the_client_can_do_is_left_to_it() {
    for shells in &SHELLS {
        daemon::what_only_the_client_can_do_is_left_to_it(shells).await;
    }
}

#[tokio::test]
async fn a_client_that_ignores_signals_is_ended_at_once() {
    for shells in &SHELLS {
        daemon::a_client_that_ignores_signals_is_ended_at_once(shells).await;
    }
}

#[tokio::test]
async fn a_hostile_daemon_costs_little() {
    for shells in &SHELLS {
        daemon::a_hostile_daemon_costs_little(shells).await;
    }
}

#[tokio::test]
async fn what_arrived_is_counted_at_the_end() {
    for shells in &SHELLS {
        scenarios::what_arrived_is_counted_at_the_end(shells).await;
    }
}

/// The folder for what is staged belongs to the machine: one after the other.
#[tokio::test]
async fn only_what_is_seen_of_this_pull_tells_of_a_stall() {
    for shells in &SHELLS {
        scenarios::a_folder_that_merely_exists_is_no_sign_of_a_stall(shells).await;
        scenarios::what_cri_o_stages_is_seen(shells).await;
        scenarios::a_pull_that_cannot_be_seen_has_a_limit(shells).await;
    }
}

#[tokio::test]
async fn a_pull_leaves_a_session_that_is_ended_at_logout() {
    for shells in &SHELLS {
        scenarios::a_pull_leaves_a_session_that_is_ended_at_logout(shells).await;
    }
}

#[tokio::test]
async fn output_without_end_is_bounded() {
    for shells in &SHELLS {
        scenarios::output_without_end_is_bounded(shells).await;
    }
}

#[tokio::test]
async fn commands_run_as_they_stand() {
    for shells in &SHELLS {
        scenarios::commands_run_as_they_stand(shells).await;
    }
}

#[tokio::test]
async fn a_command_may_leave_something_running() {
    for shells in &SHELLS {
        scenarios::a_command_may_leave_something_running(shells).await;
    }
}

#[tokio::test]
async fn a_cancelled_command_is_ended() {
    for shells in &SHELLS {
        scenarios::a_cancelled_command_is_ended(shells).await;
    }
}

#[tokio::test]
async fn a_node_tells_what_it_is_and_has() {
    for shells in &SHELLS {
        scenarios::a_node_tells_what_it_is_and_has(shells).await;
    }
}

#[tokio::test]
async fn a_probe_finds_what_is_there() {
    for shells in &SHELLS {
        scenarios::a_probe_finds_what_is_there(shells).await;
    }
}

#[tokio::test]
async fn a_clients_daemon_does_not_hold_the_call() {
    for shells in &SHELLS {
        scenarios::a_clients_daemon_does_not_hold_the_call(shells).await;
    }
}

#[tokio::test]
async fn all_names_are_below_a_private_directory() {
    for shells in &SHELLS {
        hostile::all_names_are_below_a_private_directory(shells).await;
    }
}

#[tokio::test]
async fn a_taken_name_is_left_alone() {
    for shells in &SHELLS {
        hostile::a_taken_name_is_left_alone(shells).await;
    }
}

#[tokio::test]
async fn a_pull_is_found_wherever_it_lies() {
    for shells in &SHELLS {
        hostile::a_pull_is_found_wherever_it_lies(shells).await;
    }
}

#[tokio::test]
async fn a_fifo_in_place_of_a_file_holds_nothing() {
    for shells in &SHELLS {
        hostile::a_fifo_in_place_of_a_file_holds_nothing(shells).await;
    }
}

#[tokio::test]
async fn a_process_with_a_reused_number_is_not_ended() {
    for shells in &SHELLS {
        hostile::a_process_with_a_reused_number_is_not_ended(shells).await;
    }
}

#[tokio::test]
async fn a_wait_for_another_pull_has_a_limit() {
    for shells in &SHELLS {
        hostile::a_wait_for_another_pull_has_a_limit(shells).await;
    }
}

#[tokio::test]
async fn a_cancelled_question_ends_at_once() {
    // One processor, so that what a shell starts runs after what the shell does next.
    for sh in [&["taskset", "1", "dash"], &["taskset", "1", "bash"]] {
        let shells = Shells { login: "dash", sh };
        hostile::a_cancelled_question_ends_at_once(&shells).await;
    }
}

#[tokio::test]
async fn a_command_that_cannot_run_is_told_in_plain_words() {
    for shells in &SHELLS {
        hostile::a_command_that_cannot_run_is_told_in_plain_words(shells).await;
    }
}

#[tokio::test]
async fn a_supervisor_that_cannot_end_is_ended() {
    for shells in &SHELLS {
        hostile::a_supervisor_that_cannot_end_is_ended(shells).await;
    }
}

/// Also before the command has opened its pipes, when their readers would wait for ever.
#[tokio::test]
async fn a_pull_can_be_cancelled_at_any_moment() {
    for moment in 0..20 {
        let after = std::time::Duration::from_millis(moment * 4);
        for runtime in [scenarios::docker_with("s3cret"), daemon::asked("s3cret")] {
            scenarios::a_pull_cancelled_after(&DASH, after, &runtime).await;
        }
    }
}

async fn refused(place: &Place, become_root: bool) -> Failure {
    let argv = ["true".to_string()];
    let mut session = place.session();
    run(
        &mut session,
        &node(become_root),
        &argv,
        &Arc::default(),
        pending(),
    )
    .await
    .unwrap_err()
    .failed()
    .unwrap()
}

/// `id`, of a user who is not root: the tests may be run by root.
const ORDINARY: &str = "#!/bin/sh\necho 1000\n";

#[tokio::test]
async fn a_sudo_that_refuses_is_a_matter_of_privilege_in_its_own_words() {
    for words in [
        "sudo: a password is required",
        "ops is not in the sudoers file.",
        "sudo: sorry, you must have a tty to run sudo",
        "Sorry, user ops is not allowed to execute '/bin/sh' as root on node-1.",
        "/etc/sudoers.d/lab:1:18: syntax error",
    ] {
        let place = Place::new(&DASH);
        place.write("words", words);
        let text = format!(
            "#!/bin/sh\ncat '{}' >&2\nexit 1\n",
            place.path("words").display()
        );
        place.program("sudo", &text);
        place.program("id", ORDINARY);
        let failure = refused(&place, true).await;
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::Privilege, Stage::Start)
        );
        assert!(failure.detail.contains(words), "{failure}");
        place.assert_clean().await;
    }
}

#[tokio::test]
async fn sudo_that_agrees_only_warns() {
    let place = Place::new(&DASH);
    place.program("id", ORDINARY);
    place.program(
        "sudo",
        "#!/bin/sh\n[ \"$1$2$3$4$5\" = -k-n-uroot-- ] || exit 1\nshift 5\necho 'sudo: unable to resolve host' >&2\nexec \"$@\"\n",
    );
    let argv = ["true".to_string()];
    let ended = run(
        &mut place.session(),
        &node(true),
        &argv,
        &Arc::default(),
        pending(),
    )
    .await;
    assert!(matches!(ended, Ok(output) if output.success()));
    place.assert_clean().await;
}

#[tokio::test]
async fn an_account_without_a_shell_is_a_matter_of_the_nodes_set_up() {
    find("nologin", "login");
    for become_root in [false, true] {
        let place = Place::new(&Shells {
            login: "nologin",
            sh: &["dash"],
        });
        let failure = refused(&place, become_root).await;
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::NodeSetup, Stage::Start)
        );
        assert!(
            failure
                .detail
                .contains("This account is currently not available."),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn a_node_whose_tools_fail_is_told_apart_from_a_failed_command() {
    let place = Place::new(&DASH);
    // mkfifo stands for all that the private directory needs.
    place.program("mkfifo", "#!/bin/sh\nexit 1\n");
    let failure = refused(&place, false).await;
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::NodeSetup, Stage::Run)
    );
    assert!(failure.detail.contains("temporary directory"), "{failure}");
    place.assert_clean().await;
}

// Pulls under a name that leads to prepull

#[tokio::test]
async fn an_image_gets_its_own_name_and_no_other() {
    for shells in &SHELLS {
        local_pulls::an_image_gets_its_own_name_and_no_other(shells).await;
    }
}

#[tokio::test]
async fn a_node_that_cannot_name_an_image_is_asked_for_no_pull() {
    for shells in &SHELLS {
        local_pulls::a_node_that_cannot_name_an_image_is_asked_for_no_pull(shells).await;
    }
}

#[tokio::test]
async fn a_failure_leaves_no_local_name() {
    for shells in &SHELLS {
        local_pulls::a_failure_leaves_no_local_name(shells).await;
    }
}

#[tokio::test]
async fn a_cancelled_pull_leaves_no_local_name() {
    for shells in &SHELLS {
        local_pulls::a_cancelled_pull_leaves_no_local_name(shells).await;
    }
}

#[tokio::test]
async fn a_lost_connection_ends_the_pull_and_leaves_no_local_name() {
    for shells in &SHELLS {
        local_pulls::a_lost_connection_ends_the_pull_and_leaves_no_local_name(shells).await;
    }
}

#[tokio::test]
async fn a_new_connection_begins_again() {
    for shells in &SHELLS {
        local_pulls::a_new_connection_begins_again(shells).await;
    }
}

#[tokio::test]
async fn a_killed_supervisors_local_name_is_removed() {
    for shells in &SHELLS {
        local_pulls::a_killed_supervisors_local_name_is_removed(shells).await;
    }
}

#[tokio::test]
async fn a_pull_goes_on_without_its_connection() {
    for shells in &SHELLS {
        unwatched::a_pull_goes_on_without_its_connection(shells).await;
    }
}

#[tokio::test]
async fn an_unwatched_pull_keeps_its_limits() {
    for shells in &SHELLS {
        unwatched::an_unwatched_pull_keeps_its_limits(shells).await;
    }
}

#[tokio::test]
async fn an_unwatched_pull_can_be_cancelled() {
    for shells in &SHELLS {
        unwatched::an_unwatched_pull_can_be_cancelled(shells).await;
    }
}

#[tokio::test]
async fn an_unwatched_pull_that_is_gone_begins_again() {
    for shells in &SHELLS {
        unwatched::an_unwatched_pull_that_is_gone_begins_again(shells).await;
    }
}
