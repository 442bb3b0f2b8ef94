//! What depends on the kernel, on a kernel of Debian's with cgroups of version 2 alone: tests of other
//! files here, run in a machine of their own.

use crate::support::run_in_guest;

/// They look at the version by themselves; with others this machine would take too long.
const TESTS: [&str; 18] = [
    "limits::limits_are_those_that_were_asked_for",
    "limits::a_running_containers_limits_change",
    "limits::too_much_memory_is_killed_and_said",
    "limits::a_paused_container_stands_still",
    "limits::stats_have_dockers_shape",
    "disks::limits_of_disks_are_those_that_were_asked_for",
    "disks::devices_are_only_those_that_were_given",
    "adoption::what_runs_goes_on_without_a_daemon_and_is_adopted_by_the_next",
    "adoption::a_killed_shim_takes_its_container_with_it_and_nothing_stays",
    "modes::a_cgroup_namespace_hides_where_the_container_is",
    "modes::what_a_container_moves_can_be_committed_whatever_the_kernel_notes_by_default",
    "users::an_exec_enters_the_users_of_its_container",
    "users::root_in_a_container_is_nobody_outside",
    "addresses::containers_share_a_link_of_the_host_where_the_kernel_can",
    "layers::an_image_of_many_layers_runs",
    "host::a_privileged_container_loads_modules_where_the_host_can",
    "host::a_profile_of_apparmor_confines_where_the_kernel_has_it",
    "host::containers_that_name_no_profile_get_the_engines",
];

#[test]
fn limits_and_isolation_hold_with_cgroups_of_version_2() {
    let reports = run_in_guest(&TESTS);
    for report in &reports {
        println!("{:6.1} s  {}", report.seconds, report.name);
    }
    let failed = reports.iter().filter(|report| !report.passed);
    let failed: Vec<_> =
        failed.map(|report| format!("--- {}:\n{}", report.name, report.said)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(reports.len(), TESTS.len());
}
