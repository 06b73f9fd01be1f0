// SPDX-License-Identifier: MIT
//
// files.go - many small files, read or written whole in Go: 64 goroutines
//
//	files DIR N BYTES SECONDS - read|write
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var dir, how string
var content []byte

func one(i int) {
	path := fmt.Sprintf("%s/%05d", dir, i)
	if how == "write" {
		if err := os.WriteFile(path, content, 0644); err != nil {
			log.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(path); err != nil || len(got) != len(content) {
		log.Fatal("read ", path, err)
	}
}

func pass(n int) time.Duration {
	if how == "write" {
		for i := 0; i < n; i++ {
			os.Remove(fmt.Sprintf("%s/%05d", dir, i))
		}
	}
	var next int64 = -1
	var all sync.WaitGroup
	begin := time.Now()
	for k := 0; k < 64; k++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := atomic.AddInt64(&next, 1); i < int64(n); i = atomic.AddInt64(&next, 1) {
				one(int(i))
			}
		}()
	}
	all.Wait()
	return time.Since(begin)
}

func main() {
	dir, how = os.Args[1], os.Args[6]
	n, _ := strconv.Atoi(os.Args[2])
	bytes, _ := strconv.Atoi(os.Args[3])
	seconds, _ := strconv.ParseFloat(os.Args[4], 64)
	content = make([]byte, bytes)
	pass(n)
	spent, passes := 0.0, 0
	for ; spent < seconds; passes++ {
		spent += pass(n).Seconds()
	}
	fmt.Printf("{\"rate\":%.0f}\n", float64(n*passes)/spent)
}
