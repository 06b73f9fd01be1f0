// SPDX-License-Identifier: MIT
//
// latency.go - a round trip to a thread, or how late a sleep of 1 ms ends, in Go
//
//	latency offload|sleep SECONDS
//
// The thread is a goroutine's that is locked to it: what may block in C is done so.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"time"
)

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[2], 64)
	calls, answers := make(chan func()), make(chan bool)
	go func() {
		runtime.LockOSThread()
		for f := range calls {
			f()
			answers <- true
		}
	}()
	var late []float64
	for end := time.Now().Add(time.Duration(seconds * 1e9)); ; {
		begin := time.Now()
		if begin.After(end) {
			break
		}
		if os.Args[1] == "sleep" {
			time.Sleep(time.Millisecond)
			late = append(late, float64(time.Since(begin)-time.Millisecond)/1e3)
		} else {
			calls <- func() {}
			<-answers
			late = append(late, float64(time.Since(begin))/1e3)
		}
	}
	sort.Float64s(late)
	fmt.Printf("{\"n\":%d,\"p50_us\":%.2f,\"p99_us\":%.2f}\n", len(late), late[len(late)/2],
		late[len(late)*99/100])
}
