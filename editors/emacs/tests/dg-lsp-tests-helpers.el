;;; dg-lsp-tests-helpers.el --- What the tests with the server share  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; The server answers from a script, see `dg-lsp-tests-rules'.  Keys go through
;; the keymaps and the command hooks, as in the command loop.

;;; Code:

(require 'ert)
(require 'json)
(require 'dg-lsp)

(defvar dg-lsp-tests-server '("dg-lsp")
  "The command of the server, without its backend.")

(defvar dg-lsp-tests-beside-eglot nil
  "Non-nil to have a connection of our own, with another server in Eglot.
File `dg-lsp-connection-tests' does so.")

(defvar dg-lsp-tests-rules
  '[(:after "return " :text "width * height" :model "")
    (:after "return " :text "height * width" :model "other")
    (:after "size = " :text "width" :others ["height" "width * height"])
    (:after "if area(w" :text "idth, height) > 10:")
    (:after "hang = " :then "hang")
    (:after "late = " :text "too late" :delayMs 300)
    (:after "draft = " :text "[width, height]" :steps 4 :delayMs 50)]
  "What the scripted engine answers.")

(defvar dg-lsp-tests--directory nil
  "Where the files of the tests are.")

(defun dg-lsp-tests--end ()
  "End all processes; what they still say is for nobody."
  (dolist (process (process-list))
    (set-process-filter process #'ignore)
    (set-process-sentinel process #'ignore)
    (delete-process process)))

(add-hook 'kill-emacs-hook #'dg-lsp-tests--end)

(defun dg-lsp-tests--until (wanted)
  "Wait until WANTED is fulfilled, and return its value."
  (let ((deadline (+ (float-time) 15)) value)
    (while (not (or (setq value (funcall wanted))
                    (> (float-time) deadline)))
      (accept-process-output nil 0.01))
    (or value (ert-fail (list 'never wanted (buffer-string))))))

(defun dg-lsp-tests--start ()
  "Have Eglot run the scripted server for files of a new directory."
  (setq dg-lsp-tests--directory
        (file-name-as-directory (file-truename (make-temp-file "dg" t))))
  (let ((script (expand-file-name "script.json" dg-lsp-tests--directory)))
    (write-region (json-encode (list :rules dg-lsp-tests-rules)) nil script
                  nil 'silent)
    (setq dg-lsp-command
          (append dg-lsp-tests-server
                  (list "--backend" "scripted" "--script" script))))
  (if dg-lsp-tests-beside-eglot
      (setf (alist-get 'python-mode eglot-server-programs)
            (append dg-lsp-command '(:initializationOptions (:enabled :json-false))))
    (dg-lsp-setup 'python-mode)))

(defun dg-lsp-tests--open (marked)
  "Visit a new file with the text MARKED, point at its bar."
  (unless dg-lsp-tests--directory (dg-lsp-tests--start))
  (let ((file (make-temp-file (concat dg-lsp-tests--directory "f") nil ".py"))
        (coding-system-for-write 'utf-8-unix))
    (write-region (replace-regexp-in-string "|" "" marked) nil file nil 'silent)
    (switch-to-buffer (find-file-noselect file))
    (goto-char (1+ (string-match "|" marked)))
    (unless (eglot-managed-p)
      (apply #'eglot--connect (eglot--guess-contact)))
    (when dg-lsp-tests-beside-eglot
      (should (eglot-managed-p))
      (should-not dg-lsp-mode)
      (dg-lsp-mode 1))
    (dg-lsp-tests--until #'dg-lsp-current-server)
    (should dg-lsp-mode)))

(defmacro dg-lsp-tests-in (marked &rest body)
  "Run BODY in a file with the text MARKED that has a server."
  (declare (indent 1))
  `(let ((dg-lsp-settings nil) (inhibit-message t))
     (dg-lsp-tests--open ,marked)
     (unwind-protect (progn ,@body)
       (dg-lsp-configure :enabled nil :drafts nil :engine nil :languages nil)
       (set-buffer-modified-p nil)
       (kill-buffer))))

(defun dg-lsp-tests--run (command)
  "Run COMMAND as the command loop does."
  (setq this-command command)
  (run-hooks 'pre-command-hook)
  (undo-boundary)
  (call-interactively command)
  (run-hooks 'post-command-hook)
  (setq last-command this-command))

(defun dg-lsp-tests--press (&rest keys)
  "Press KEYS, each as for `kbd'."
  (dolist (key keys)
    (let ((events (kbd key)))
      (setq last-command-event (aref events (1- (length events))))
      (dg-lsp-tests--run (key-binding events t)))))

(defun dg-lsp-tests--type (text)
  "Type TEXT."
  (mapc (lambda (character)
          (setq last-command-event character)
          (dg-lsp-tests--run #'self-insert-command))
        text))

(defun dg-lsp-tests--ghost (text)
  "Wait until the ghost text is TEXT."
  (dg-lsp-tests--until (lambda () (equal (dg-lsp-ghost-rest) text))))

(defun dg-lsp-tests--quiet ()
  "Wait until nothing is asked any more, and see that nothing is shown."
  (let ((round-trip nil))
    (dg-lsp-tests--until (lambda () (not (memq dg-lsp--timer timer-list))))
    (dg-lsp-server-command (dg-lsp-current-server) "dg.models" nil
                           (lambda (_models) (setq round-trip t)))
    (dg-lsp-tests--until (lambda () (and round-trip (not dg-lsp--request)))))
  (should-not (dg-lsp-ghost-rest)))

(defun dg-lsp-tests--state (state)
  "Wait until the server's state is STATE."
  (dg-lsp-tests--until
   (lambda () (equal (plist-get (dg-lsp-status) :state) state))))

(defun dg-lsp-tests--line ()
  "Return the line of point."
  (buffer-substring-no-properties (line-beginning-position)
                                  (line-end-position)))

(provide 'dg-lsp-tests-helpers)
;;; dg-lsp-tests-helpers.el ends here
