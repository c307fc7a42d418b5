// Copyright: (c) 2026, Muster contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// One replica that stands for election with client-go's leaderelection, for bench/failover.py.
//
// It appends one line of JSON to the file MUSTER_AUTHORITY_LOG when it stands, when it begins to lead and when it has
// stopped leading; "at" is CLOCK_MONOTONIC in nanoseconds, which compares between the processes of one machine.
// SIGTERM ends its work, gives the Lease back (ReleaseOnCancel) and ends the process; a lost Lease ends it, too.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of a kubeconfig; empty: the service account of the Pod")
	namespace := flag.String("namespace", "default", "where the Lease is")
	name := flag.String("name", "bench", "name of the Lease")
	identity := flag.String("identity", "", "who stands for election")
	lease := flag.Duration("lease", 15*time.Second, "LeaseDuration")
	renew := flag.Duration("renew", 10*time.Second, "RenewDeadline")
	retry := flag.Duration("retry", 2*time.Second, "RetryPeriod")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fail(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		fail(err)
	}
	log, err := os.OpenFile(os.Getenv("MUSTER_AUTHORITY_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		fail(err)
	}
	tell := func(event string) {
		scope := *namespace + "/" + *name
		line := fmt.Sprintf("{\"at\": %d, \"who\": %q, \"scope\": %q, \"event\": %q}\n", monotonic(), *identity, scope, event)
		if _, err := log.WriteString(line); err != nil { // one write: lines of several processes do not mix
			fail(err)
		}
	}
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	worked := make(chan struct{})
	led := false
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: *name, Namespace: *namespace},
			Client:     clients.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: *identity},
		},
		LeaseDuration:   *lease,
		RenewDeadline:   *renew,
		RetryPeriod:     *retry,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				led = true
				tell("begin")
				<-ctx.Done()
				tell("end")
				close(worked)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		fail(err)
	}
	tell("ready")
	elector.Run(terminated)
	if led {
		<-worked
	}
}

func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		fail(err)
	}
	return now.Nano()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}
